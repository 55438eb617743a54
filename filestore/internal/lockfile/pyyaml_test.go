package lockfile_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

var seed = flag.Uint64("seed", 0, "of the random documents; 0: another at each run")

// pyyaml is a process that reads and writes YAML as the original library does.
type pyyaml struct {
	t       *testing.T
	encoder *json.Encoder
	decoder *json.Decoder
}

func startPyYAML(t *testing.T) *pyyaml {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import yaml").Run(); err != nil {
		t.Fatalf("%s cannot import yaml (%v): install the Debian package python3-yaml, as `make test` does", python, err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/pyyaml.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	return &pyyaml{t, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}
}

type pyRequest struct {
	Load string         `json:"load,omitempty"`
	Dump map[string]any `json:"dump,omitempty"`
	How  int            `json:"how,omitempty"`
}

type pyAnswer struct {
	Value any
	Text  string
	Error string
}

// askAll sends all requests and calls check with each answer, in order.
func (p *pyyaml) askAll(requests []pyRequest, check func(int, pyAnswer)) {
	p.t.Helper()
	sent := make(chan error, 1)
	go func() {
		for _, r := range requests {
			if err := p.encoder.Encode(r); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range requests {
		var a pyAnswer
		if err := p.decoder.Decode(&a); err != nil {
			p.t.Fatalf("reading answer %d: %v", i, err)
		}
		check(i, a)
	}
	if err := <-sent; err != nil {
		p.t.Fatal(err)
	}
}

// documents makes n random documents; those of the nasty texts come first.
func documents(t *testing.T, n int) []lock.Data {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed=%d", s)
	c := randomChoices{rand.New(rand.NewPCG(s, 0))}
	var all []lock.Data
	for _, text := range append(nastyTexts, longTexts...) {
		data, err := lock.NewData(map[string]any{text + "k": text, "k" + text: []any{text, []any{text}, map[string]any{text: text}}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	for _, number := range nastyNumbers {
		data, err := lock.NewData(map[string]any{"n": number, "l": []any{number, -number}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	for len(all) < n {
		all = append(all, generateData(t, c))
	}
	return all
}

const manyDocuments = 3000

// TestPyYAMLReads: PyYAML reads every file as we meant it.
func TestPyYAMLReads(t *testing.T) {
	t.Parallel()
	p := startPyYAML(t)
	docs := documents(t, manyDocuments)
	requests := make([]pyRequest, len(docs))
	wants := make([]map[string]any, len(docs))
	for i, data := range docs {
		l := lock.Lock{Data: data, Token: lock.Token(i + 1), AcquireTime: keptTime(int64(i) * 1e9)}
		wants[i] = data.Map()
		wants[i]["lock_acquired"] = l.AcquireTime.Format("2006-01-02T15:04:05.000Z")
		wants[i]["lock_action"] = "lock"
		wants[i]["lock_file_location"] = location
		wants[i]["lock_file_status"] = "locked"
		wants[i]["lock_token"] = float64(l.Token)
		if i%4 == 0 {
			text := nastyTexts[i/4%len(nastyTexts)]
			l.TTL, l.Holder, l.Caller, l.RequestID, l.ExpireTime = 90*time.Minute, text, text, text, l.AcquireTime
			wants[i]["lock_ttl"], wants[i]["lock_expires"] = "1h30m", wants[i]["lock_acquired"]
			if text != "" {
				wants[i]["lock_holder"], wants[i]["lock_caller"], wants[i]["lock_request_id"] = text, text, text
			}
		}
		if i%4 == 1 {
			l.OnExpiry, l.Tree, l.Set, l.StaleTime = lock.Keep, true, lock.SetRef{ID: l.Token - 1, Size: 3}, l.AcquireTime
			wants[i]["lock_on_expiry"], wants[i]["lock_scope"], wants[i]["lock_set"], wants[i]["lock_stale"] = "keep", "tree", fmt.Sprintf("%d/3", i), wants[i]["lock_acquired"]
		}
		requests[i].Load = string(lockfile.Append(nil, l, location))
	}
	p.askAll(requests, func(i int, a pyAnswer) {
		if a.Error != "" || !reflect.DeepEqual(a.Value, any(wants[i])) {
			t.Errorf("yaml.safe_load reads file %d as\n%v (%s)\nwant\n%v\nfile:\n%s", i, asJSON(a.Value), a.Error, asJSON(wants[i]), requests[i].Load)
		}
	})
}

// TestPyYAMLWrites: we read what PyYAML writes as it was meant.
func TestPyYAMLWrites(t *testing.T) {
	t.Parallel()
	p := startPyYAML(t)
	docs := documents(t, manyDocuments)
	requests := make([]pyRequest, 0, len(docs))
	kept := docs[:0]
	for _, data := range docs {
		if data.IsEmpty() { // the request cannot say so
			continue
		}
		r := pyRequest{Dump: data.Map(), How: len(requests)}
		if strings.ContainsAny(data.JSON(), "\u0085\u2028\u2029") || strings.Contains(data.JSON(), `\u202`) {
			r.How = 0 // with allow_unicode PyYAML writes these as the line breaks that they are in YAML 1.1 alone
		}
		requests = append(requests, r)
		kept = append(kept, data)
	}
	var differing []int
	var again []pyRequest
	p.askAll(requests, func(i int, a pyAnswer) {
		if a.Error != "" {
			t.Errorf("PyYAML cannot write document %d, %s: %s", i, kept[i].JSON(), a.Error)
			return
		}
		if len(a.Text) > lock.MaxFileBytes {
			return // with that much indentation it is no lock file
		}
		if got := lockfile.Read([]byte(a.Text)); got.Problem != "" || !reflect.DeepEqual(got.Data.Map(), kept[i].Map()) {
			differing, again = append(differing, i), append(again, pyRequest{Load: a.Text})
		}
	})
	p.askAll(again, func(n int, a pyAnswer) {
		i, got := differing[n], lockfile.Read([]byte(again[n].Load))
		if !reflect.DeepEqual(a.Value, any(kept[i].Map())) {
			return // PyYAML itself reads something else: it breaks texts wrongly where lines are short
		}
		t.Errorf("document %d as PyYAML writes it (way %d) reads as\n%s (problem %q)\nwant\n%s\nfile:\n%s", i, requests[i].How, got.Data.JSON(), got.Problem, kept[i].JSON(), again[n].Load)
	})
	if most := len(docs) / 100; len(again) > most {
		t.Errorf("PyYAML does not read what it wrote for %d documents; the test wants at most %d", len(again), most)
	}
}

func asJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
