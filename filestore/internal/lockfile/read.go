package lockfile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pylok/pylok/internal/document/yamldoc"
	"github.com/pylok/pylok/lock"
)

// Read makes sense of the text of a lock file. It never fails: text that is no
// lock file has a Problem.
func Read(text []byte) Content {
	c, _ := ReadAll(text)
	return c
}

// ReadAll is Read and tells the reserved keys too, whatever stands there.
func ReadAll(text []byte) (Content, Reserved) {
	mapping, problem := readMapping(text)
	if problem != "" {
		return Content{Problem: shorten(problem)}, nil
	}
	value, err := yamldoc.Value(mapping, yamldoc.Lenient)
	if err != nil {
		return Content{Problem: shorten(err.Error())}, nil
	}
	keys := value.(map[string]any)
	data, err := lock.NewData(keys)
	if err != nil {
		return Content{Problem: shorten(err.Error())}, nil
	}
	c := Content{Data: data, Token: readToken(mapping)}
	c.Holder, _ = keys["lock_holder"].(string)
	c.Caller, _ = keys["lock_caller"].(string)
	c.RequestID, _ = keys["lock_request_id"].(string)
	c.Location, _ = keys["lock_file_location"].(string)
	c.Tree = keys["lock_scope"] == "tree"
	if keys["lock_on_expiry"] == "keep" {
		c.OnExpiry = lock.Keep
	}
	c.Set = readSet(keys["lock_set"])
	c.StaleTime = readTime(keys["lock_stale"])
	c.AcquireTime = readTime(keys["lock_acquired"])
	c.ExpireTime = readTime(keys["lock_expires"])
	if ttl, ok := keys["lock_ttl"].(string); ok {
		if d, err := time.ParseDuration(ttl); err == nil && d > 0 {
			c.TTL = d
		}
	}
	return c, reservedIn(mapping)
}

// shorten cuts a problem that quotes a long file to what fits in a line.
func shorten(problem string) string {
	const most = 200
	if len(problem) <= most {
		return problem
	}
	return strings.ToValidUTF8(problem[:most], "") + "..."
}

// mostToken is more than any root comes to, and leaves room to count on from.
const mostToken = 1 << 62

// readToken reads lock_token as the server writes it, to the last digit. One that is
// too large is somebody's joke.
func readToken(mapping *yaml.Node) (token lock.Token) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Value != "lock_token" {
			continue
		}
		digits, err := strconv.ParseUint(value.Value, 10, 64)
		if err != nil || value.Style != 0 || digits > mostToken {
			digits = 0
		}
		token = lock.Token(digits)
	}
	return token
}

// readSet reads lock_set as the server writes it.
func readSet(value any) lock.SetRef {
	text, _ := value.(string)
	id, size, _ := strings.Cut(text, "/")
	token, err := strconv.ParseUint(id, 10, 64)
	holds, notSize := strconv.ParseUint(size, 10, 31)
	if err != nil || notSize != nil || token > mostToken {
		return lock.SetRef{}
	}
	return lock.SetRef{ID: lock.Token(token), Size: int(holds)}
}

func readTime(value any) time.Time {
	text, _ := value.(string)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// readMapping returns the mapping that the file is, or says in words why it is none.
func readMapping(text []byte) (mapping *yaml.Node, problem string) {
	if len(text) > lock.MaxFileBytes {
		return nil, fmt.Sprintf("the file is larger than %d bytes", lock.MaxFileBytes)
	}
	mapping, err := yamldoc.Parse(text)
	switch {
	case err != nil:
		return nil, "the file " + err.Error()
	case mapping.Kind != yaml.MappingNode:
		return nil, "the file is not a YAML mapping (key: value)"
	}
	return mapping, ""
}
