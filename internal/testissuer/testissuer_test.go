package testissuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
)

func get(t *testing.T, url, authorization string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", authorization)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestTokens: the key that is published is the one that signs, also after a change.
func TestTokens(t *testing.T) {
	i := New(t)
	verify := func(token string) bool {
		_, text := get(t, i.URL+"/keys", "")
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal([]byte(text), &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("the keys: %v\n%s", err, text)
		}
		part := strings.Split(token, ".")
		decode := func(text string) []byte {
			b, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		point := append(append([]byte{4}, decode(set.Keys[0]["x"])...), decode(set.Keys[0]["y"])...)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			t.Fatal(err)
		}
		hash, signature := sha256.Sum256([]byte(part[0]+"."+part[1])), decode(part[2])
		return ecdsa.Verify(key, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	token := i.Token(map[string]any{"aud": "a"})
	if !verify(token) {
		t.Error("the token is not signed with the key that is published")
	}
	i.Rotate()
	if verify(token) || !verify(i.Token(nil)) {
		t.Error("after the change of keys the old one counts, or the new one does not")
	}
	if i.KeyFetches() != 3 {
		t.Errorf("the keys were fetched %d times, want 3", i.KeyFetches())
	}
}

// TestJob: the tokens of a job are for who has its secret, and for the audience that is
// asked for.
func TestJob(t *testing.T) {
	i := New(t)
	variables := i.Job(map[string]any{"run_id": "4711"})
	url, secret := variables["ACTIONS_ID_TOKEN_REQUEST_URL"], variables["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
	if code, _ := get(t, url+"&audience=a", "Bearer guessed"); code != http.StatusForbidden {
		t.Errorf("without the secret of the job the answer is %d, want 403", code)
	}
	code, text := get(t, url+"&audience=a", "Bearer "+secret)
	var answer struct{ Value string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != http.StatusOK {
		t.Fatalf("the answer is %d, %v\n%s", code, err, text)
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(answer.Value, ".")[1])
	if err != nil || !strings.Contains(string(claims), `"aud":"a"`) || !strings.Contains(string(claims), `"run_id":"4711"`) {
		t.Errorf("the claims are %s (%v)", claims, err)
	}
}
