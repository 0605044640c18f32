package doctor

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
)

// MarshalJSON keeps the type beside the value, so that a plan read back from the journal is the plan that was approved.
func (v Value) MarshalJSON() ([]byte, error) {
	switch x := v.V.(type) {
	case nil:
		return []byte(`{"type":"null"}`), nil
	case string:
		return json.Marshal(typedValue{"text", x})
	case int64:
		return json.Marshal(typedValue{"bigint", strconv.FormatInt(x, 10)})
	case bool:
		return json.Marshal(typedValue{"boolean", strconv.FormatBool(x)})
	case []byte:
		return json.Marshal(typedValue{"bytea", base64.StdEncoding.EncodeToString(x)})
	}
	return nil, fmt.Errorf("a statement's argument can't be of type %T", v.V)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (v *Value) UnmarshalJSON(data []byte) error {
	var t typedValue
	if err := json.Unmarshal(data, &t); err != nil {
		return err
	}
	var err error
	switch t.Type {
	case "null":
		v.V = nil
	case "text":
		v.V = t.Value
	case "bigint":
		v.V, err = strconv.ParseInt(t.Value, 10, 64)
	case "boolean":
		v.V, err = strconv.ParseBool(t.Value)
	case "bytea":
		v.V, err = base64.StdEncoding.DecodeString(t.Value)
	default:
		err = fmt.Errorf("%q is not a type of a statement's argument", t.Type)
	}
	return err
}

type typedValue struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}
