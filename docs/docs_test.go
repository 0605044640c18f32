package docs_test

import (
	"strings"
	"testing"

	"github.com/synapse-doctor/synapse-doctor/docs"
)

func TestAPageAndASectionCanBeAskedFor(t *testing.T) {
	page, ok := docs.Check("sequence")
	if !ok || !strings.HasPrefix(page, "# sequence: ") {
		t.Errorf("the page of sequence is %.40q", page)
	}
	text, ok := docs.Code("sequence/behind-table")
	if !ok || !strings.HasPrefix(text, "## sequence/behind-table\n") || strings.Contains(text, "## sequence/behind-stream-position") {
		t.Errorf("the section is %q", text)
	}
	if _, ok := docs.Page("operations"); !ok {
		t.Error("no page operations")
	}
	for _, absent := range []string{"", "x", "../docs", "sequence/x", "x/y", "sequence/"} {
		if _, ok := docs.Code(absent); ok {
			t.Errorf("there is a section %q", absent)
		}
		if _, ok := docs.Check(absent); ok {
			t.Errorf("there is a page %q", absent)
		}
	}
}

// Each section answers the same six questions.
func TestEverySectionSaysWhatAnAdministratorAsks(t *testing.T) {
	questions := []string{"**What it means.**", "**How it came about.**", "**If it is left alone.**", "**See it by hand.**",
		"**How the doctor mends it.**", "**By hand.**"}
	for _, check := range docs.Checks() {
		page, _ := docs.Check(check)
		if !strings.HasPrefix(page, "# "+check+": ") {
			t.Errorf("the page of %s begins %.40q", check, page)
		}
		if strings.Count(page, "```")%2 != 0 {
			t.Errorf("the page of %s leaves a code block open", check)
		}
		for _, code := range docs.Codes(check) {
			if id, _, _ := strings.Cut(code, "/"); id != check {
				t.Errorf("%s stands on the page of %s", code, check)
			}
			text, ok := docs.Code(code)
			if !ok {
				t.Errorf("%s has no section", code)
			}
			at := 0
			for _, q := range questions {
				i := strings.Index(text[at:], q)
				if i < 0 {
					t.Errorf("%s does not say, or not in its place: %s", code, q)
					continue
				}
				at += i
			}
		}
	}
}
