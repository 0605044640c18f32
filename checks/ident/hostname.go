package ident

// matchesHostname compares a client's name with one in pg_hba.conf, which stands for all that end in it when it begins
// with a dot. The server ignores the case of ASCII letters; in names it meets no others.
func matchesHostname(pattern, name string) bool {
	if pattern != "" && pattern[0] == '.' {
		if len(name) < len(pattern) {
			return false
		}
		name = name[len(name)-len(pattern):]
	}
	return lower(pattern) == lower(name)
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
