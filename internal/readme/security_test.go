package readme

import (
	"regexp"
	"strings"
	"testing"
)

// What docs/security.md calls things that are others in the test.
const (
	hostInPage = "locks.example.com" // localhost
	portInPage = "5625"              // a free one
)

// serving is where a server says that it serves, which differs from run to run.
var serving = regexp.MustCompile(`serving \S+ on \S+`)

// TestSecurity runs the commands of docs/security.md. The page's server is for all the
// network (0.0.0.0), the test's for loopback.
func TestSecurity(t *testing.T) {
	page{
		file:  "security.md",
		serve: "pylokd --listen",
		to: func(port string) *strings.Replacer {
			return strings.NewReplacer("0.0.0.0:"+portInPage, "127.0.0.1:"+port, ":"+portInPage, ":"+port, hostInPage, "localhost")
		},
		from: func(port string) *strings.Replacer {
			return strings.NewReplacer("localhost:"+port, hostInPage+":"+portInPage, "localhost", hostInPage)
		},
	}.run(t)
}
