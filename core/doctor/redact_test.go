package doctor

import (
	"strings"
	"testing"
)

func TestARedactedTextHoldsNoFormOfTheSecret(t *testing.T) {
	const secret = `p@ss 'w/ö"rd\%&`
	r := NewRedactor([]string{secret}, []string{"synapse"})
	for _, text := range []string{
		`password is p@ss 'w/ö"rd\%& here`,
		`postgres://u:p%40ss%20%27w%2F%C3%B6%22rd%5C%25&@host/db`,
		`postgres://u:p%40ss+%27w%2F%C3%B6%22rd%5C%25%26@host/db`,
		`password='p@ss \'w/ö"rd\\%&' host=x`,
		`ALTER ROLE x PASSWORD 'p@ss ''w/ö"rd\%&'`,
		`{"password":"p@ss 'w/ö\"rd\\%\u0026"}`,
		`"p@ss 'w/ö\"rd\\%&"`,
		`'p@ss '\''w/ö"rd\%&'`,
	} {
		got := r.String(text)
		if !strings.Contains(got, Masked) || strings.Contains(got, "ss") && strings.Contains(got, "rd\\") {
			t.Errorf("%s became %s", text, got)
		}
	}
}

func TestAMaskNeverSpellsOutASecret(t *testing.T) {
	for _, c := range []struct {
		name            string
		secrets, public []string
		in, want        string
	}{
		{"a secret that is the role's name", []string{"synapse"}, []string{"synapse"}, "role synapse", "role synapse"},
		{"a secret within the role's name", []string{"synapse"}, []string{"synapse_user"}, "synapse_user:synapse@h", "synapse_user:********@h"},
		{"a role's name within the secret", []string{"synapse-s3cret"}, []string{"synapse"}, "synapse:synapse-s3cret@h", "synapse:********@h"},
		{"a secret within another", []string{"abcd", "abcdefgh"}, nil, "abcdefgh abcd", "******** ********"},
		{"too short to mask", []string{"abc", ""}, nil, "abc abcd", "abc abcd"},
		{"nothing known", nil, nil, "abcd", "abcd"},
	} {
		if got := NewRedactor(c.secrets, c.public).String(c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := (*Redactor)(nil).String("as it is"); got != "as it is" {
		t.Errorf("the nil redactor made %q", got)
	}
}
