package pgdb

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/stringprep"
)

// scramIterations is PostgreSQL's own number (SCRAM_SHA_256_DEFAULT_ITERATIONS).
const scramIterations = 4096

// ScramVerifier is what a server keeps of a password for SCRAM-SHA-256 (RFC 5803, as PostgreSQL writes it). ALTER ROLE …
// PASSWORD takes it as it is, so that the password itself stays here.
func ScramVerifier(password string, salt []byte) (string, error) {
	stored, server, err := scramKeys(password, salt, scramIterations)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, scramIterations, b64(salt), b64(stored), b64(server)), nil
}

func scramKeys(password string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, prepared(password), salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("compute the SCRAM keys: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	key := sha256.Sum256(mac("Client Key"))
	return key[:], mac("Server Key"), nil
}

// prepared is a password as libpq and the server hash it: SASLprep where that applies, else byte for byte.
func prepared(password string) string {
	if out, err := stringprep.SASLprep.Prepare(password); err == nil && out != "" {
		return out
	}
	return password
}

// HashKind is the way in which a server keeps a role's password.
type HashKind string

const (
	NoHash      HashKind = "none"
	ScramHash   HashKind = "scram-sha-256"
	MD5Hash     HashKind = "md5"
	UnknownHash HashKind = "unknown"
)

const scramPrefix = "SCRAM-SHA-256$"

// KindOfHash tells how pg_authid.rolpassword keeps the password.
func KindOfHash(stored string) HashKind {
	switch {
	case stored == "":
		return NoHash
	case strings.HasPrefix(stored, scramPrefix):
		return ScramHash
	case len(stored) == len("md5")+2*md5.Size && strings.HasPrefix(stored, "md5"):
		return MD5Hash
	}
	return UnknownHash
}

// PasswordFits reports whether password is the one of which pg_authid.rolpassword keeps stored for the role. The error is
// for a hash that is not understood.
func PasswordFits(password, role, stored string) (bool, error) {
	switch KindOfHash(stored) {
	case NoHash:
		return false, nil
	case MD5Hash:
		sum := md5.Sum([]byte(password + role))
		return subtle.ConstantTimeCompare([]byte("md5"+hex.EncodeToString(sum[:])), []byte(stored)) == 1, nil
	case ScramHash:
		return scramFits(password, strings.TrimPrefix(stored, scramPrefix))
	}
	return false, fmt.Errorf("the password of role %q is kept in a form that is not known to the doctor", role)
}

// scramFits compares with iterations:salt$stored:server.
func scramFits(password, verifier string) (bool, error) {
	how, keys, _ := strings.Cut(verifier, "$")
	count, saltText, _ := strings.Cut(how, ":")
	storedText, _, _ := strings.Cut(keys, ":")
	iterations, err := strconv.Atoi(count)
	salt, saltErr := base64.StdEncoding.DecodeString(saltText)
	want, keyErr := base64.StdEncoding.DecodeString(storedText)
	if err != nil || saltErr != nil || keyErr != nil || iterations < 1 || len(want) != sha256.Size {
		return false, fmt.Errorf("the role's SCRAM verifier is damaged")
	}
	got, _, err := scramKeys(password, salt, iterations)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
