// Package filestore is a lock.Store on lock files and a journal.
//
//	<root>/lb/server-1.lock    a held lock, readable and complete at any moment
//	<root>/.pylok/             the server's own: format, daemon, batch, journal/, *.new
//	                           *.move and *.take; and *.kept, files of others' (see place.go)
//
// The file decides whether a lock is held; the journal makes an answer durable.
// Changes are made in batches, each step for the whole batch. The committer makes the
// first three; then files and state agree, and the next batch may begin:
//
//  1. stage: write each new lock file as .pylok/<number>.new and move it to its place,
//     which of several creators exactly one achieves; move what is to be replaced or
//     removed into .pylok, look whether it is ours, and put it back if not. A lock that
//     is handed over has its file replaced once.
//  2. write the journal lines; where there is no room, undo 1.
//  3. return what was moved to the pool, which hands it out again for another hold.
//
// Meanwhile the settler makes the rest, for all batches that have come so far:
//
//  4. fdatasync the journal, once.
//  5. publish the new state, answer.
//
// So there are two states: that of the files, which the next change is checked
// against, and that which survives a power cut, which is all that anybody is told.
//
// A crash between two steps is mended at the next start: what is in place for a change that
// is not in the journal was never answered for and is removed; what was moved for one is put
// back; what is in the journal after the last checkpoint is made again.
package filestore
