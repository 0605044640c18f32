package pgdb

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
)

func TestPsycopg2ArgumentsBecomeLibpqSettings(t *testing.T) {
	for name, test := range map[string]struct {
		args map[string]any
		want Settings // nil for an error
	}{
		"Synapse's example": {
			map[string]any{"user": "synapse_user", "password": "s", "dbname": "synapse", "host": "localhost", "cp_min": 5, "cp_max": 10, "keepalives_idle": 10},
			Settings{"user": "synapse_user", "password": "s", "dbname": "synapse", "host": "localhost", "keepalives_idle": "10"},
		},
		"database is dbname":            {map[string]any{"database": "synapse"}, Settings{"dbname": "synapse"}},
		"not both":                      {map[string]any{"database": "a", "dbname": "b"}, nil},
		"arguments win over the dsn":    {map[string]any{"dsn": "host=a port=1", "port": 2}, Settings{"host": "a", "port": "2"}},
		"the dsn may be a URL":          {map[string]any{"dsn": "postgresql://u@h/d", "database": "e"}, Settings{"user": "u", "host": "h", "dbname": "e"}},
		"null is absent, empty is not":  {map[string]any{"host": nil, "port": ""}, Settings{"port": ""}},
		"a password may be a number":    {map[string]any{"password": 12345}, Settings{"password": "12345"}},
		"booleans are Python's":         {map[string]any{"keepalives": true}, Settings{"keepalives": "True"}},
		"unknown":                       {map[string]any{"hots": "a"}, nil},
		"a list is no value":            {map[string]any{"host": []any{"a"}}, nil},
		"what the doctor cannot honour": {map[string]any{"sslcrl": "f"}, Settings{"sslcrl": "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromArgs(test.args)
			if (err == nil) != (test.want != nil) || !maps.Equal(got, test.want) {
				t.Errorf("got %v and error %v, want %v", map[string]string(got), err, map[string]string(test.want))
			}
		})
	}
}

func TestConnectionStringsReadAsInLibpq(t *testing.T) {
	for conninfo, want := range map[string]Settings{
		"":                                        {},
		"host=a  port = 5433\n user=u":            {"host": "a", "port": "5433", "user": "u"},
		`password='a \'b\' \\ c' dbname=d`:        {"password": `a 'b' \ c`, "dbname": "d"},
		`password=a\ b\`:                          {"password": "a b"},
		"password='' user=u":                      {"password": "", "user": "u"},
		"postgresql://":                           {},
		"postgres://u:p%40ss@h:1/d":               {"user": "u", "password": "p@ss", "host": "h", "port": "1", "dbname": "d"},
		"postgresql://a:1,[::1]:2,c/d":            {"host": "a,::1,c", "port": "1,2,", "dbname": "d"},
		"postgresql://%2Fvar%2Frun/d":             {"host": "/var/run", "dbname": "d"},
		"postgresql:///d?host=/tmp&ssl=true":      {"dbname": "d", "host": "/tmp", "sslmode": "require"},
		"postgresql://u@/?hostaddr=127.0.0.1":     {"user": "u", "hostaddr": "127.0.0.1"},
		"postgresql://u:a/b@h":                    {"host": "u", "port": "a", "dbname": "b@h"}, // as libpq: a slash must be encoded
		"postgresql://h?application_name=a%20b%3": nil,
		"postgresql://h?a=1":                      nil,
		"postgresql://h?user":                     nil,
		"postgresql://[::1":                       nil,
		"postgresql://h/%00":                      nil,
		"host":                                    nil,
		"host a=b":                                nil,
		"password='a":                             nil,
		"hots=a":                                  nil,
		"host=\x00":                               nil,
	} {
		got, err := Parse(conninfo)
		if (err == nil) != (want != nil) || !maps.Equal(got, want) {
			t.Errorf("%q: got %v and error %v, want %v", conninfo, map[string]string(got), err, map[string]string(want))
		}
	}
}

const planted = "hunter2-planted"

func TestNoWayOfPrintingSettingsShowsAPassword(t *testing.T) {
	s := Settings{"user": "u", "password": planted, "sslpassword": planted, "strange": planted}
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&printed, verb, s)
		fmt.Fprintf(&printed, verb, struct{ S Settings }{s})
		fmt.Fprintf(&printed, verb, NewPool(s, Options{}, 1))
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(text)
	slog.New(slog.NewTextHandler(&printed, nil)).Info("x", "settings", s)
	if strings.Contains(printed.String(), planted) || strings.Contains(printed.String(), fmt.Sprintf("%x", planted)) {
		t.Errorf("a password was printed:\n%s", printed.String())
	}
	if !strings.Contains(s.String(), "user=u") {
		t.Errorf("%s does not name the user", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("postgresql://u:p@h:1,[::1]/d?sslmode=require")
	f.Add(`host=a password='x \' y' port=1`)
	f.Fuzz(func(t *testing.T, conninfo string) {
		s, err := Parse(conninfo)
		if err != nil {
			return
		}
		var b strings.Builder
		for name, value := range s {
			fmt.Fprintf(&b, " %s=%s", name, quote(value))
		}
		again, err := Parse(b.String())
		if err != nil || !maps.Equal(s, again) {
			t.Errorf("%q does not survive being written and read: %v", conninfo, err)
		}
		_, _ = s.hosts()
	})
}

func FuzzErrorsHoldNoPassword(f *testing.F) {
	f.Add("u:", "@h:x/d?a=1")
	f.Add("host=h password=", " user")
	f.Add("", "=")
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, scheme := range []string{"", "postgresql://", "host=h password="} {
			s, err := Parse(scheme + before + planted + after)
			if err == nil {
				_, err = s.hosts()
			}
			if err != nil && strings.Contains(err.Error(), planted) {
				t.Errorf("the error quotes the password: %v", err)
			}
		}
	})
}

func TestEverySecretKeywordCountsAsOne(t *testing.T) {
	for dsn, want := range map[string]bool{
		"host=h user=u sslkey=file passfile=file": false, "host=h password=''": false,
		"password=x": true, "postgres://u:x@h/": true, "sslpassword=x": true, "postgres://h/?oauth_client_secret=x": true, "scram_client_key=x": true,
	} {
		s, err := Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.HasSecret(); got != want {
			t.Errorf("%s: %t", dsn, got)
		}
	}
}
