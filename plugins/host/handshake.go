package host

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// handshake is what a plugin says of itself in the first line of its stdout; see plugin.proto.
type handshake struct {
	protocol int
	socket   string
	secured  bool   // a certificate is there
	name     string // optional
	version  string // optional
}

var errNoHandshake = errors.New("not a handshake")

// parseHandshake reads the line. The plugin must listen in dir, which nobody else can reach.
func parseHandshake(line, dir string) (handshake, error) {
	f := strings.Split(strings.TrimSpace(line), "|")
	if len(f) < 4 {
		return handshake{}, errNoHandshake
	}
	core, err := strconv.Atoi(f[0])
	if err != nil {
		return handshake{}, errNoHandshake
	}
	var h handshake
	if h.protocol, err = strconv.Atoi(f[1]); err != nil {
		return handshake{}, errNoHandshake
	}
	at := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	h.socket, h.secured, h.name, h.version = f[3], at(5) != "", clip(at(7)), clip(at(8))
	switch {
	case core != 1:
		return h, fmt.Errorf("was made with a go-plugin of core protocol %d, and only 1 is known", core)
	case at(4) != "grpc":
		return h, fmt.Errorf("wants to talk %q, and only grpc is known", clip(at(4)))
	case f[2] != "unix" || filepath.Clean(h.socket) != h.socket || !strings.HasPrefix(h.socket, dir+"/"):
		return h, fmt.Errorf("listens at %s %q, and not in the directory that it was given", clip(f[2]), clip(h.socket))
	}
	return h, nil
}
