package access

import "sync"

// maxHeard is how many names heard keeps for certain.
const maxHeard = 65536

// heard are the callers that were heard of since the start, the latest of them for certain:
// as many again take the place of those before.
type heard struct {
	mu        sync.RWMutex
	now, then map[string]struct{}
}

// note notes a caller.
func (s *heard) note(name string) {
	s.mu.RLock()
	_, known := s.now[name]
	s.mu.RUnlock()
	if known || name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || len(s.now) >= maxHeard {
		s.now, s.then = make(map[string]struct{}), s.now
	}
	s.now[name] = struct{}{}
}

// has reports whether a caller was heard of.
func (s *heard) has(name string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, now := s.now[name]
	_, then := s.then[name]
	return now || then
}
