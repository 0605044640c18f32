package pgdb

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// What a check pays before its first statement, and for each further reading.
func BenchmarkRead(b *testing.B) {
	s := login(pgtest.Start(b).Database(b), nil)
	read := func(b *testing.B, p *Pool) {
		b.Helper()
		err := p.Read(b.Context(), func(tx pgx.Tx) error {
			var n int
			return tx.QueryRow(b.Context(), "SELECT 1").Scan(&n)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("new session", func(b *testing.B) {
		for b.Loop() {
			p := NewPool(s, Options{}, 1)
			read(b, p)
			p.Close()
		}
	})
	b.Run("shared session", func(b *testing.B) {
		p := NewPool(s, Options{}, 1)
		defer p.Close()
		for b.Loop() {
			read(b, p)
		}
	})
}
