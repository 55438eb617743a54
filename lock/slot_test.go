package lock_test

import (
	"testing"

	"github.com/pylok/pylok/lock"
)

// The number of a shared hold is what its name was made of; names that people made may have
// none.
func TestSlotNumber(t *testing.T) {
	for _, number := range []int{1, 7, 12345} {
		slot, err := lock.MustParseName("conf/app").Slot(number)
		if err != nil {
			t.Fatal(err)
		}
		if got := slot.SlotNumber(); got != number {
			t.Errorf("%v has the number %d, want %d", slot, got, number)
		}
	}
	for _, name := range []string{"conf", "conf/7", "conf/_+", "conf/_+x", "conf/_+-7", "conf/_+99999999999999999999"} {
		if got := lock.MustParseName(name).SlotNumber(); got != 0 {
			t.Errorf("%s has the number %d, want none", name, got)
		}
	}
}
