//go:build !linux

package pgdb

import (
	"context"
	"errors"
	"net"
)

func dialAs(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("only on Linux can the doctor connect as another user of the operating system")
}
