// Package limits keeps one caller from taking what all need: requests a second, calls,
// waits, watches and scans that are open at a time, and held locks. It stands before
// everything else that a door opens on and offers the same lock.Locks.
//
// A caller is a name where one is proved, and else an address: callers who prove nothing
// are one caller for each IPv4 address, and for each /64 of IPv6, which is what one
// customer of a network has. Of those who come by no address, as over a socket, each path
// is one.
package limits
