package pgdb

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

func TestKeepalivesAreSetOnTheSocket(t *testing.T) {
	db := pgtest.Start(t).Database(t)
	conn := connect(t, login(db, Settings{"keepalives_idle": "11", "keepalives_interval": "7", "keepalives_count": "3", "tcp_user_timeout": "9000"}), Options{})
	raw, err := conn.PgConn().Conn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 11, unix.TCP_KEEPINTVL: 7, unix.TCP_KEEPCNT: 3, unix.TCP_USER_TIMEOUT: 9000} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, want %d (%v)", option, got, want, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
