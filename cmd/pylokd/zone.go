package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// linkedZone returns the time zone of a machine whose localtime, as /etc/localtime, is a
// link to zone data that the machine does not have: Go takes that for UTC without a word,
// and the times in lock files that name no zone would be off by hours. The program has the
// data itself. It returns nil where Go knows what localtime says.
func linkedZone(localtime string) (*time.Location, error) {
	if _, err := os.Stat(localtime); !errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	target, err := os.Readlink(localtime)
	if err != nil {
		return nil, nil // there is none, which means UTC
	}
	_, name, _ := strings.Cut(target, "zoneinfo/")
	if name != "" {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("%s is a link to %s, which is not there, so the time zone is not known: set TZ to one such as Europe/Berlin or UTC", localtime, target)
}
