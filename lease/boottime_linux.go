package lease

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// boottime reads CLOCK_BOOTTIME: time since boot, suspend included, which nobody
// can set. See clock_gettime(2).
func boottime() time.Duration {
	const clockBoottime = 7
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(fmt.Sprintf("clock_gettime(CLOCK_BOOTTIME): %v", errno)) // Linux has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}
