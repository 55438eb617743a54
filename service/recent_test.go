package service

import "testing"

func TestRecent(t *testing.T) {
	var r recent[string, string]
	check := func(value string, hash uint64, keep bool, want int) {
		t.Helper()
		times := 0
		got := r.get(value, hash, func() (string, bool) {
			times++
			return "<" + value + ">", keep
		})
		if got != "<"+value+">" || times != want {
			t.Errorf("%s: got %s, made %d times; want %d times", value, got, times, want)
		}
	}
	check("a", 7, true, 1)
	check("a", 7, true, 0)
	check("b", 8, true, 1)
	check("a", 7, true, 0)
	check("b", 7, true, 1) // takes the place of a
	check("a", 7, true, 1)
	check("large", 7, false, 1)
	check("large", 7, false, 1)
	check("a", 7, true, 0)
}
