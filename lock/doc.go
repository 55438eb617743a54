// Package lock has the words of pylok and their contract: a lock's [Name] and [Data], a
// [Lock] that is held or free, the [Event] of each change, who asks for what, why it is
// refused ([Reason]), and the [Store] that keeps the held locks and the order of all
// changes. Who gets which lock when is for package manager; a store knows no rules.
//
// The package uses the standard library only.
package lock
