package lock

// Caller is who asks, as far as the door that the request came through knows. The zero
// Caller is nobody known.
type Caller struct {
	// Name is the authenticated name; empty: anonymous.
	Name string
}

// Actor returns who made a change, for its event: the caller, else the holder that the
// request names.
func (c Caller) Actor(holder string) string {
	if c.Name != "" {
		return c.Name
	}
	return holder
}
