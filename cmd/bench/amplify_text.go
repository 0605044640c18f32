package main

import (
	"crypto/sha256"
	"encoding/base64"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
)

// Matrix identifiers, alone or in JSON: events, rooms, users, aliases. The server's name, after the colon, stays.
var identifier = regexp.MustCompile(`\$[A-Za-z0-9_-]{43}|![A-Za-z0-9]{18}:|![A-Za-z0-9_-]{43}|[@#][A-Za-z0-9_.=/+-]+:`)

// texts knows the identifiers of a database.
type texts struct {
	number map[string]int
	known  []string
}

// text is cut at its identifiers: there is one, by its number, after each part but the last.
type text struct {
	parts   []string
	numbers []int
}

func (t text) identifies() bool { return len(t.numbers) > 0 }

func (x *texts) parse(s string) text {
	if !strings.ContainsAny(s, "$!@#") {
		return text{parts: []string{s}}
	}
	var t text
	end := 0
	for _, at := range identifier.FindAllStringIndex(s, -1) {
		id := s[at[0]:at[1]]
		number, ok := x.number[id]
		if !ok {
			if x.number == nil {
				x.number = map[string]int{}
			}
			number = len(x.known)
			x.number[id] = number
			x.known = append(x.known, id)
		}
		t.parts, t.numbers = append(t.parts, s[end:at[0]]), append(t.numbers, number)
		end = at[1]
	}
	t.parts = append(t.parts, s[end:])
	return t
}

// names are the identifiers of the n-th copy. Those of events and rooms are as random as real ones: indexes over them grow
// as in life, not at their end. Users keep their name, with the number of the copy after it.
func (x *texts) names(n int) []string {
	names := make([]string, len(x.known))
	for i, id := range x.known {
		hash := sha256.Sum256([]byte(strconv.Itoa(n) + id))
		random := base64.RawURLEncoding.EncodeToString(hash[:])
		switch {
		case id[0] == '@' || id[0] == '#':
			names[i] = strings.TrimSuffix(id, ":") + "." + strconv.Itoa(n) + ":"
		case strings.HasSuffix(id, ":"):
			names[i] = "!" + strings.NewReplacer("-", "x", "_", "y").Replace(random[:18]) + ":"
		default:
			names[i] = id[:1] + random
		}
	}
	return names
}

func (t text) write(names []string) string {
	if len(t.numbers) == 0 {
		return t.parts[0]
	}
	var b strings.Builder
	length := len(t.parts[len(t.numbers)])
	for i, n := range t.numbers {
		length += len(t.parts[i]) + len(names[n])
	}
	b.Grow(length)
	for i, n := range t.numbers {
		b.WriteString(t.parts[i])
		b.WriteString(names[n])
	}
	b.WriteString(t.parts[len(t.numbers)])
	return b.String()
}

var vocabulary = strings.Fields(`lorem server federation homeserver bridge element synapse migration backup weekend release deploy failing tests running
queries index vacuum planner café naïve données 数据库 ошибка 😀 tomorrow meeting agenda invited colleagues discussing compliance documents`)

// moreWords are always the same of a row of a copy.
func moreWords(n, row int) string {
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(strconv.Itoa(n))) // never fails
	r := rand.New(rand.NewPCG(seed.Sum64(), uint64(row)))
	words := make([]string, 4, 5)
	for i := range words {
		words[i] = vocabulary[r.IntN(len(vocabulary))]
	}
	return strings.Join(append(words, "ref"+strconv.Itoa(r.IntN(100_000))), " ")
}
