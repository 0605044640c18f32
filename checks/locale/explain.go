package locale

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// plan nodes that hand rows on in the order in which they get them.
var keepOrder = []string{"Aggregate", "Group", "Limit", "Result", "Subquery Scan", "Unique", "WindowAgg"}

// planNode is one node of EXPLAIN (FORMAT JSON).
type planNode struct {
	Type      string     `json:"Node Type"`
	Strategy  string     `json:"Strategy"`
	Relation  string     `json:"Relation Name"`
	Index     string     `json:"Index Name"`
	Direction string     `json:"Scan Direction"`
	Condition string     `json:"Index Cond"`
	Plans     []planNode `json:"Plans"`
}

// explained asks how the server would run a statement.
func explained(ctx context.Context, tx pgx.Tx, statement string) (planNode, error) {
	var text string
	if err := tx.QueryRow(ctx, "EXPLAIN (FORMAT JSON, COSTS off) "+statement, pgx.QueryExecModeExec).Scan(&text); err != nil {
		return planNode{}, err
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(text), &plans); err != nil || len(plans) != 1 {
		return planNode{}, fmt.Errorf("the server's plan can't be understood: %w", err)
	}
	return plans[0].Plan, nil
}

// twinReason is why an index can't be read where another one begins with the same keys: the server chooses between the two.
const twinReason = "without amcheck: the server reads %s in its place"

// inOrderOf says whether the plan reads the index x from its beginning to its end, and does nothing to the order of what
// it reads. Otherwise why names what it does instead.
func (n planNode) inOrderOf(x index) (indexOnly bool, why string) {
	switch n.Type {
	case "Index Scan", "Index Only Scan":
		switch {
		case n.Index != x.Name || n.Relation != x.Table:
			return false, fmt.Sprintf(twinReason, n.Index)
		case n.Direction != "Forward":
			return false, "the server reads it backwards"
		case n.Condition != "" || len(n.Plans) > 0:
			return false, "the server does not read the whole of it"
		}
		return n.Type == "Index Only Scan", ""
	}
	if len(n.Plans) != 1 || !slices.Contains(keepOrder, n.Type) || n.Type == "Aggregate" && n.Strategy != "Plain" && n.Strategy != "Sorted" {
		return false, fmt.Sprintf("the server does not read it in order, but has a plan with %q", n.Type)
	}
	return n.Plans[0].inOrderOf(x)
}

// avoidsIndexes says whether the plan reads its tables from their files alone.
func (n planNode) avoidsIndexes() bool {
	if n.Index != "" || n.Type == "Tid Scan" || n.Type == "Bitmap Heap Scan" {
		return false
	}
	return !slices.ContainsFunc(n.Plans, func(p planNode) bool { return !p.avoidsIndexes() })
}
