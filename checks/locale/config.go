package locale

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
	"github.com/synapse-doctor/synapse-doctor/core/synapse"
)

// allowance is where allow_unsafe_locale is set.
type allowance struct {
	File string
	Line int
}

func (a allowance) String() string { return fmt.Sprintf("%s:%d", a.File, a.Line) }

// unsafeAllowed finds the database entries that set allow_unsafe_locale, by label.
func unsafeAllowed(t *doctor.Target) (map[string]*allowance, error) {
	if len(t.ConfigFiles) == 0 {
		return nil, nil
	}
	config, err := synapse.Load(t.ConfigFiles...)
	if err != nil {
		return nil, err
	}
	found := map[string]*allowance{}
	for _, e := range config.Databases {
		if e.AllowUnsafeLocale {
			found[e.Label] = &allowance{File: e.File, Line: settingLine(e)}
		}
	}
	return found, nil
}

var settingText = regexp.MustCompile(`^[^#]*\ballow_unsafe_locale\b`)

// settingLine is the line of the setting, which stands beside the entry's args: the nearest one that has it. An entry that is
// written in another way, as with YAML's anchors, is told by the line of its args.
func settingLine(e synapse.Entry) int {
	content, err := os.ReadFile(e.File)
	if err != nil {
		return e.Line
	}
	nearest := 0
	for i, line := range strings.Split(string(content), "\n") {
		if n := i + 1; settingText.MatchString(line) && (nearest == 0 || abs(n-e.Line) < abs(nearest-e.Line)) {
			nearest = n
		}
	}
	if nearest == 0 {
		return e.Line
	}
	return nearest
}

func abs(n int) int { return max(n, -n) }
