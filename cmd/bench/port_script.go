package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/synapse-doctor/synapse-doctor/core/pgtest"
)

// findSynapse finds the Debian system with a Synapse that make test-synapse has installed into a folder.
func findSynapse() (root string, err error) {
	if os.Geteuid() != 0 {
		return "", errors.New("only root can enter the folder of a real Synapse")
	}
	root = os.Getenv("SYNAPSE_DOCTOR_SYNAPSE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		root = filepath.Join(cache, "synapse-doctor-test", "synapse")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/synapse_port_db")); err != nil {
		return "", fmt.Errorf("there is no real Synapse (make test-synapse installs one, SYNAPSE_DOCTOR_SYNAPSE names another): %w", err)
	}
	return root, nil
}

// Debian's mount point for a moment's need: where the folder of a run is seen from within.
const inside = "/mnt"

// enter mounts what programs need, where nobody else sees it, and becomes one of them.
const enter = `set -e
root=$1 home=$2
shift 2
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$home" "$root` + inside + `"
exec chroot "$root" "$@"`

// script moves the homeserver with Synapse's own script, which makes the schema itself. It is given a copy of the file, since it
// opens it for writing.
func (b *portBench) script(root string) func(context.Context, *pgtest.DB) (portCost, error) {
	return func(ctx context.Context, db *pgtest.DB) (cost portCost, err error) {
		dir := filepath.Join(b.dir, db.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return cost, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		if err := copyOf(b.file.path, filepath.Join(dir, "homeserver.db")); err != nil {
			return cost, err
		}
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		for name, text := range map[string]string{
			"signing.key":     "ed25519 a_test " + base64.RawStdEncoding.EncodeToString(key) + "\n",
			"homeserver.yaml": fmt.Sprintf(scriptYAML, b.serverName, inside, rand.Text(), db.User, db.Password, db.Name, db.Host, db.Port),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return cost, err
			}
		}
		cost, err = b.watch(ctx, command{
			args: []string{"unshare", "--mount", "--propagation", "private", "--", "sh", "-c", enter, "enter", root, dir,
				"env", "--chdir=" + inside, "synapse_port_db", "--sqlite-database", inside + "/homeserver.db", "--postgres-config", inside + "/homeserver.yaml"},
			env: append(environment(), "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"),
		})
		if err != nil {
			return cost, err
		}
		return cost, b.expectRows(ctx, db)
	}
}

// scriptYAML is as much of a homeserver.yaml as the script asks for.
const scriptYAML = `server_name: %q
media_store_path: %[2]s/media
signing_key_path: %[2]s/signing.key
macaroon_secret_key: %[3]q
form_secret: %[3]q
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
database:
  name: psycopg2
  args:
    user: %[4]q
    password: %[5]q
    dbname: %[6]q
    host: %[7]s
    port: %[8]d
    cp_min: 5
    cp_max: 10
`

func copyOf(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}
