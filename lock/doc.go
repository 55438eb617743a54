// Package lock is the domain of pylok: named locks that are held or free, the
// order of all their changes, and the rules of who gets which lock when.
//
// Two halves meet at one seam. A [Store] keeps the held locks and the order of
// changes and knows no rules. [Manager] has all the rules and keeps nothing but
// what may be lost in a crash (who waits, how far a lease has been renewed); it
// commits to a Store by compare-and-swap. So every store behaves the same.
//
// The package uses the standard library only.
package lock
