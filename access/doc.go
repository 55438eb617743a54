// Package access knows who asks and what they may do. Each door says what it knows of a
// connection and a call, the Evidence; a Control makes a lock.Caller of it, by the access
// file; and the Guard, which stands before the rules of package manager and offers the
// same lock.Locks, asks the access file whether that caller may do what it asks for, and
// leaves out what it may not see. Doors open on the Guard alone.
package access
