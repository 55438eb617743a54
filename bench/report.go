package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pylok/pylok/internal/load"
)

// report is all that a run has found. Its JSON has every round.
type report struct {
	Machine    machine           `json:"machine"`
	Rounds     int               `json:"rounds"`
	Seconds    float64           `json:"seconds"`
	Contenders []contenderReport `json:"contenders,omitempty"`
	Rows       []*rowReport      `json:"rows,omitempty"`
	Locks      []lockScale       `json:"locks,omitempty"`
	Leases     []leaseScale      `json:"leases,omitempty"`
	Beside     []besideScale     `json:"beside,omitempty"`
}

type contenderReport struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// rowReport is what one contender did at one measurement.
type rowReport struct {
	What      string   `json:"what"`
	Size      int      `json:"size"` // callers, waiters or subscribers
	Contender string   `json:"contender"`
	Rounds    []sample `json:"rounds"`
}

// sample is one round of it. Times are in seconds.
type sample struct {
	Count     int64   `json:"count"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50,omitempty"`
	P99       float64 `json:"p99,omitempty"`
	FirstP50  float64 `json:"first_p50,omitempty"` // of a cycle's first request
	CPU       float64 `json:"server_cpu"`          // of the server, for each
	RSS       int64   `json:"rss,omitempty"`       // of the server afterwards, bytes
}

func perSecond(s sample) float64 { return s.PerSecond }
func p50(s sample) float64       { return s.P50 }
func p99(s sample) float64       { return s.P99 }
func firstP50(s sample) float64  { return s.FirstP50 }
func cpu(s sample) float64       { return s.CPU }
func rss(s sample) float64       { return float64(s.RSS) }

func (r *report) add(what string, size int, contender string, s sample) {
	row := r.row(what, size, contender)
	if row == nil {
		row = &rowReport{What: what, Size: size, Contender: contender}
		r.Rows = append(r.Rows, row)
	}
	row.Rounds = append(row.Rounds, s)
}

// row returns what was measured, or nil.
func (r *report) row(what string, size int, contender string) *rowReport {
	for _, row := range r.Rows {
		if row.What == what && row.Size == size && row.Contender == contender {
			return row
		}
	}
	return nil
}

// spread is the median of the rounds and their least and most.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	median := values[middle]
	if len(values)%2 == 0 {
		median = (values[middle-1] + values[middle]) / 2
	}
	return spread{median, values[0], values[len(values)-1]}
}

func (row *rowReport) spread(of func(sample) float64) spread {
	var values []float64
	for _, s := range row.Rounds {
		values = append(values, of(s))
	}
	return spreadOf(values)
}

// ratio returns how often a has b's figure, round by round: rounds of one number were
// measured one after the other, on a machine in the same mood.
func ratio(a, b *rowReport, of func(sample) float64) spread {
	var values []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		if of(b.Rounds[i]) > 0 {
			values = append(values, of(a.Rounds[i])/of(b.Rounds[i]))
		}
	}
	return spreadOf(values)
}

// print writes the report as Markdown.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.Machine)
	for _, c := range r.Contenders {
		fmt.Fprintf(w, "- %s: %s\n", c.Name, c.About)
	}
	if len(r.Contenders) > 0 {
		fmt.Fprintf(w, "\nThe median of %d rounds of %v s, and in parentheses the least and the most.\n\n", r.Rounds, r.Seconds)
		r.printRows(w)
	}
	if len(r.Locks)+len(r.Leases)+len(r.Beside) > 0 {
		r.printScale(w)
	}
	fmt.Fprintln(w)
	r.printGoals(w)
}

// table writes a Markdown table with its columns aligned.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer, columns ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)}
	t.row(columns...)
	rule := make([]string, len(columns))
	for i := range rule {
		rule[i] = "---"
	}
	t.row(rule...)
	return t
}

func (t table) row(cells ...string) { fmt.Fprintf(t, "| %s\t|\n", strings.Join(cells, "\t| ")) }

// printRows writes the comparison, the contenders of one measurement side by side.
func (r *report) printRows(w io.Writer) {
	t := newTable(w, "what", "at", "contender", "a second", "p50", "p99", "server CPU s for 1,000", "RSS", "pylok against it")
	rows := slices.Clone(r.Rows)
	place := make(map[string]int) // of a measurement: where it came first
	for i, row := range rows {
		if key := fmt.Sprint(row.What, row.Size); place[key] == 0 {
			place[key] = i + 1
		}
	}
	order := func(row *rowReport) (int, int) {
		return place[fmt.Sprint(row.What, row.Size)], slices.IndexFunc(starters, func(s starter) bool { return s.name == row.Contender })
	}
	slices.SortStableFunc(rows, func(a, b *rowReport) int {
		placeA, contenderA := order(a)
		placeB, contenderB := order(b)
		return cmp.Or(cmp.Compare(placeA, placeB), cmp.Compare(contenderA, contenderB))
	})
	for _, row := range rows {
		rate, against := "", ""
		if row.What != load.RowHandOver { // whose rate is that of the holds
			rate = row.spread(perSecond).format(load.FormatCount)
		}
		if pylok := r.row(row.What, row.Size, "pylok"); pylok != nil && row.Contender != "pylok" {
			if row.What == load.RowHandOver {
				against = ratio(row, pylok, p50).format(times)
			} else {
				against = ratio(pylok, row, perSecond).format(times)
			}
		}
		server := row.spread(func(s sample) float64 { return 1000 * cpu(s) }).format(threeDigits)
		memory := ""
		if bytes := row.spread(rss).median; bytes > 0 {
			memory = mebibytes(bytes)
		}
		t.row(row.What, load.At(row.What, row.Size), row.Contender, rate,
			row.spread(p50).format(duration), row.spread(p99).format(duration), server, memory, against)
	}
	t.Flush()
}

// format writes a spread; one of a figure that there is not is empty.
func (s spread) format(value func(float64) string) string {
	switch {
	case s.most == 0:
		return ""
	case s.least == s.most:
		return value(s.median)
	}
	return fmt.Sprintf("%s (%s-%s)", value(s.median), value(s.least), value(s.most))
}

func times(v float64) string       { return fmt.Sprintf("%.2f", v) }
func threeDigits(v float64) string { return fmt.Sprintf("%.3g", v) }
func mebibytes(v float64) string   { return load.FormatCount(v/(1<<20)) + " MiB" }

func duration(seconds float64) string {
	return load.FormatDuration(time.Duration(seconds * float64(time.Second)))
}

func (r *report) writeJSON(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
