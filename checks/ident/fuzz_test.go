package ident

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzParse looks at what holds for every file: reading it ends, always with the same result, each record is where it
// says, and a line that is inserted becomes one more record and changes no other.
func FuzzParse(f *testing.F) {
	stock, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(stock) == 0 {
		f.Fatal(stock, err)
	}
	for _, name := range stock {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("synapse\n@list"), uint8(0))
		f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), []byte(""), uint8(2))
	}
	for seed := range uint64(50) {
		tree := newGenerator(seed).tree()
		f.Add([]byte(tree["pg_hba.conf"]), []byte(tree["extra.conf"]), uint8(seed))
	}
	f.Fuzz(func(t *testing.T, content, other []byte, pick uint8) {
		major := majors[int(pick)%len(majors)]
		tree := map[string]string{}
		for _, name := range included {
			tree["/etc/"+name] = string(other)
		}
		read := func(main []byte) *rules {
			tree[mainFile] = string(main)
			from, total := inMemory(tree), 0
			r, err := parse(mainFile, major, files{List: from.List, Read: func(path string) ([]byte, error) {
				text, err := from.Read(path)
				if total += len(text); total > 1<<18 {
					t.Skip("files that include each other take too long for a fuzzer")
				}
				return text, err
			}})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		before := read(content)
		if again := read(content); !reflect.DeepEqual(before, again) {
			t.Fatal("the same file is read in two ways")
		}
		_ = before.match(synapses, world{})

		for i := range before.Records {
			rec := &before.Records[i]
			text := tree[rec.File]
			if rec.Offset < 0 || rec.Offset >= int64(len(text)) || rec.Offset > 0 && text[rec.Offset-1] != '\n' {
				t.Fatalf("%s begins at byte %d", rec.where(), rec.Offset)
			}
		}
		// What is included may be included more than once, and then so is the line.
		if selfIncluding(before) {
			return
		}
		inserted(t, read, before, content, nil, len(before.Records))
		for i := range before.Records {
			if rec := &before.Records[i]; rec.File == mainFile && i%16 == int(pick)/16 {
				inserted(t, read, before, content, rec, i)
				return
			}
		}
	})
}

// selfIncluding is whether the main file is included too.
func selfIncluding(r *rules) bool {
	last := 0
	for _, rec := range r.Records {
		if rec.File == mainFile && rec.Line <= last {
			return true
		} else if rec.File == mainFile {
			last = rec.Line
		}
	}
	return false
}

// inserted inserts a line before a record, which is the i-th.
func inserted(t *testing.T, read func([]byte) *rules, before *rules, content []byte, rec *record, i int) {
	t.Helper()
	const comment, line = "why\\\nand how", "host    \"added\"    added    192.0.2.7/32    scram-sha-256"
	offset, text := before.insertBefore(rec, content, comment, line)
	changed := insert(content, offset, text)
	if !bytes.Equal(content, append(bytes.Clone(changed[:offset]), changed[int(offset)+len(text):]...)) {
		t.Fatal("bytes are lost")
	}
	after := read(changed)
	if len(after.Records) != len(before.Records)+1 {
		t.Fatalf("%d records became %d", len(before.Records), len(after.Records))
	}
	if added := after.Records[i]; added.Text != line || added.Fault != "" || added.File != mainFile {
		t.Fatalf("the %dth record is %+v", i, added)
	}
	kept := append(append([]record{}, after.Records[:i]...), after.Records[i+1:]...)
	for k := range kept {
		if !sameMeaning(kept[k], before.Records[k]) {
			t.Fatalf("%+v became %+v", before.Records[k], kept[k])
		}
	}
}

// sameMeaning is whether two records are the same, wherever they are.
func sameMeaning(a, b record) bool {
	a.Line, a.Offset, b.Line, b.Offset = 0, 0, 0, 0
	return reflect.DeepEqual(a, b)
}
