package load

import "context"

// What is measured: the rows of a report.
const (
	RowCycles        = "Lock+Unlock"
	RowHandOver      = "hand-over"
	RowReads         = "Status"
	RowDeliveries    = "Watch"
	RowOneConnection = "Watch, one connection"
)

// oneConnectionFrom is the number of subscribers from which they are measured on one
// connection too.
const oneConnectionFrom = 1000

// units is what the size of each row counts.
var units = map[string]string{
	RowCycles:        "caller",
	RowHandOver:      "waiter",
	RowReads:         "caller",
	RowDeliveries:    "subscriber",
	RowOneConnection: "subscriber",
}

// At says what the size of a row is of, such as 16 callers; empty: it has none.
func At(row string, size int) string {
	if units[row] == "" {
		return ""
	}
	return FormatSize(size, units[row])
}

// Measurement is a row to be measured.
type Measurement struct {
	Row  string
	Size int // callers, waiters or subscribers
	Run  func(ctx context.Context, t Target, options Options) (Run, error)
}

// Measurements returns the rows for those numbers of callers, waiters and
// subscribers, in the order of a report.
func Measurements(callers, waiters, subscribers []int) (all []Measurement) {
	add := func(row string, size int, run func(context.Context, Target, int, Options) (Run, error)) {
		all = append(all, Measurement{row, size, func(ctx context.Context, t Target, options Options) (Run, error) {
			return run(ctx, t, size, options)
		}})
	}
	for _, n := range callers {
		add(RowCycles, n, Cycles)
	}
	for _, n := range waiters {
		add(RowHandOver, n, HandOver)
	}
	for _, n := range callers {
		add(RowReads, n, Reads)
	}
	for _, n := range subscribers {
		add(RowDeliveries, n, func(ctx context.Context, t Target, n int, options Options) (Run, error) {
			return Deliveries(ctx, t, n, n, options)
		})
		if n >= oneConnectionFrom {
			add(RowOneConnection, n, func(ctx context.Context, t Target, n int, options Options) (Run, error) {
				return Deliveries(ctx, t, n, 1, options)
			})
		}
	}
	return all
}
