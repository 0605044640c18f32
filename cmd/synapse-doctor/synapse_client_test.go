//go:build synapse

package main_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

// client is a user who is logged in.
type client struct {
	url   string
	user  string // @name:test.example
	token string
}

// answer holds what the tests read of the homeserver's answers.
type answer struct {
	AccessToken string   `json:"access_token"`
	UserID      string   `json:"user_id"`
	Nonce       string   `json:"nonce"`
	RoomID      string   `json:"room_id"`
	EventID     string   `json:"event_id"`
	ContentURI  string   `json:"content_uri"`
	Joined      []string `json:"joined_rooms"`

	SearchCategories struct {
		RoomEvents struct {
			Count int `json:"count"`
		} `json:"room_events"`
	} `json:"search_categories"`

	Chunk []struct {
		Type    string `json:"type"`
		Content struct {
			Body string `json:"body"`
		} `json:"content"`
	} `json:"chunk"`
}

// call sends a request, which must succeed.
func (c client) call(t *testing.T, method, path string, body any) answer {
	t.Helper()
	status, text := c.try(t, method, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s %s: %d: %s", method, path, status, text)
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return a
}

// try sends a request and returns the answer, whatever it is. A body that is no []byte goes as JSON.
func (c client) try(t *testing.T, method, path string, body any) (status int, text []byte) {
	t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		content = bytes.NewReader(b)
	default:
		plain, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(plain)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, c.url+path, content)
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text
}

type object = map[string]any

// register makes an administrator's account with the shared secret.
func (h *homeserver) register(t *testing.T, name string) client {
	t.Helper()
	c := client{url: h.url}
	nonce := c.call(t, "GET", "/_synapse/admin/v1/register", nil).Nonce
	mac := hmac.New(sha1.New, []byte(h.secret))
	fmt.Fprintf(mac, "%s\x00%s\x00%s\x00admin", nonce, name, password(name))
	a := c.call(t, "POST", "/_synapse/admin/v1/register", object{"nonce": nonce, "username": name, "password": password(name),
		"admin": true, "mac": hex.EncodeToString(mac.Sum(nil))})
	return client{h.url, a.UserID, a.AccessToken}
}

func password(name string) string { return "pw-" + name }

// login opens another session of an account.
func (h *homeserver) login(t *testing.T, name string) client {
	t.Helper()
	a := client{url: h.url}.call(t, "POST", "/_matrix/client/v3/login", object{"type": "m.login.password",
		"identifier": object{"type": "m.id.user", "user": name}, "password": password(name)})
	return client{h.url, a.UserID, a.AccessToken}
}

func (c client) createRoom(t *testing.T, name string) (room string) {
	t.Helper()
	return c.call(t, "POST", "/_matrix/client/v3/createRoom", object{"name": name, "preset": "public_chat"}).RoomID
}

func (c client) send(t *testing.T, room, text string) (event string) {
	t.Helper()
	path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/%s", url.PathEscape(room), rand.Text())
	return c.call(t, "PUT", path, object{"msgtype": "m.text", "body": text}).EventID
}

// messages are the texts of a room, the oldest first.
func (c client) messages(t *testing.T, room string) []string {
	t.Helper()
	var texts []string
	for _, event := range c.call(t, "GET", fmt.Sprintf("/_matrix/client/v3/rooms/%s/messages?dir=f&limit=1000", url.PathEscape(room)), nil).Chunk {
		if event.Type == "m.room.message" {
			texts = append(texts, event.Content.Body)
		}
	}
	return texts
}

// rooms are those that the user is in.
func (c client) rooms(t *testing.T) []string {
	t.Helper()
	return c.call(t, "GET", "/_matrix/client/v3/joined_rooms", nil).Joined
}

// traffic makes something happen in every stream that a small homeserver uses, and returns a room with its messages.
func (h *homeserver) traffic(t *testing.T) (room string, texts []string) {
	t.Helper()
	const v3 = "/_matrix/client/v3/"
	alice, bob := h.register(t, "alice"), h.register(t, "bob")
	client{url: h.url}.call(t, "POST", v3+"register?kind=guest", object{})
	room = alice.createRoom(t, "Straße ✨")
	bob.call(t, "POST", v3+"join/"+url.PathEscape(room), object{})
	for _, from := range []client{alice, bob} {
		key := base64.RawStdEncoding.EncodeToString([]byte(rand.Text() + "123456"))
		for n := range 5 {
			text := fmt.Sprintf("message %d of %s 🎉", n, from.user)
			texts = append(texts, text)
			event := from.send(t, room, text)
			from.call(t, "POST", v3+"rooms/"+url.PathEscape(room)+"/receipt/m.read/"+url.PathEscape(event), object{})
		}
		media := from.call(t, "POST", "/_matrix/media/v3/upload", []byte("a picture of "+from.user)).ContentURI
		from.call(t, "POST", "/_synapse/admin/v1/media/quarantine/"+media[len("mxc://"):], object{})
		for _, c := range []struct {
			method, path string
			body         object
		}{
			{"PUT", "profile/" + from.user + "/displayname", object{"displayname": "Ольга"}},
			{"PUT", "presence/" + from.user + "/status", object{"presence": "online"}},
			{"PUT", "user/" + from.user + "/account_data/m.direct", object{"a": 1}},
			{"PUT", "user/" + from.user + "/rooms/" + url.PathEscape(room) + "/account_data/note", object{"a": 1}},
			{"PUT", "user/" + from.user + "/rooms/" + url.PathEscape(room) + "/tags/u.work", object{"order": 0.5}},
			{"PUT", "pushrules/global/content/word", object{"pattern": "word", "actions": []string{"notify"}}},
			{"POST", "pushers/set", object{"app_id": "app", "app_display_name": "App", "device_display_name": "Phone", "pushkey": from.user, "kind": "http",
				"lang": "en", "data": object{"url": "http://127.0.0.1:9/_matrix/push/v1/notify"}}},
			{"PUT", "sendToDevice/m.test/" + rand.Text(), object{"messages": object{bob.user: object{"*": object{"a": 1}}}}},
			{"POST", "keys/device_signing/upload", object{"master_key": object{"user_id": from.user, "usage": []string{"master"}, "keys": object{"ed25519:" + key: key}}}},
			{"GET", "sync?timeout=0", nil},
		} {
			var body any
			if c.body != nil {
				body = c.body
			}
			from.call(t, c.method, v3+c.path, body)
		}
		from.call(t, "POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0", object{"conn_id": "main",
			"lists": object{"all": object{"ranges": [][]int{{0, 20}}, "timeline_limit": 5, "required_state": [][]string{{"*", "*"}}}}})
	}
	alice.reads(t, room, texts)
	return room, texts
}

// reads makes sure that the messages of the room are these.
func (c client) reads(t *testing.T, room string, want []string) {
	t.Helper()
	if got := c.messages(t, room); !slices.Equal(got, want) {
		t.Errorf("%s reads %q, want %q", c.user, got, want)
	}
}

// findsPerson waits until a search for people gives the user: Synapse fills its directory in the background.
func (c client) findsPerson(t *testing.T, word, user string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		status, text := c.try(t, "POST", "/_matrix/client/v3/user_directory/search", object{"search_term": word})
		if status == http.StatusOK && bytes.Contains(text, []byte(`"`+user+`"`)) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a search for %q does not give %s: %d %s", word, user, status, text)
		}
	}
}
