package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// largestTokenFile is how many bytes a file with a bearer token has at most.
const largestTokenFile = 64 << 10

// TokenFile is the bearer token in a file, without the white space around it. The file is
// read again when it has changed, such as one that Kubernetes or a vault replaces.
func TokenFile(path string) BearerSource {
	f := &tokenFile{path: path}
	return f.bearer
}

// tokenFile is a file and what was in it last.
type tokenFile struct {
	path string

	mu    sync.Mutex
	info  fs.FileInfo // nil: it was not read yet
	token string
}

func (f *tokenFile) bearer(context.Context) (Bearer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.info != nil && os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		return Bearer{Token: f.token}, nil
	}
	if err == nil {
		f.info = nil
		f.token, err = readToken(f.path)
	}
	if err != nil {
		return Bearer{}, fmt.Errorf("the file with the bearer token: %w", err)
	}
	f.info = info
	return Bearer{Token: f.token}, nil
}

func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, largestTokenFile+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	switch {
	case len(text) > largestTokenFile:
		return "", fmt.Errorf("%s has more than %d bytes", path, largestTokenFile)
	case token == "":
		return "", errors.New(path + " is empty")
	}
	if err := checkBearer(token); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}
