package manager

import (
	"fmt"
	"time"
)

// WithBoottime returns the Config with another clock for leases.
func (c Config) WithBoottime(boottime func() time.Duration) Config {
	c.boottime = boottime
	return c
}

// Rest describes what is kept of anybody; "" where nobody wants or has anything.
func (m *Manager) Rest() (rest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, q := range m.queues {
		rest += fmt.Sprintf("queue %v: %d users, %d in line, %d waiting, held %t, late %t; ", name, q.users, q.line.Len(), q.waiting, len(q.sem) == 0, q.late != nil)
		for e := q.line.Front(); e != nil; e = e.Next() {
			w := e.Value.(*waiter)
			rest += fmt.Sprintf("[%d %s granting %t gone %t calls %d tree %t drain %t barrier %v again %v] ", w.place, w.request.RequestID, w.granting, w.gone, len(w.calls), w.request.Tree, w.request.Drain, w.barrier, w.again)
		}
	}
	for name, s := range m.scopes {
		rest += fmt.Sprintf("scope %v: tree %t, %d closing; ", name, s.tree, len(s.closing))
	}
	for name := range m.shared {
		rest += fmt.Sprintf("shared %v; ", name)
	}
	if m.waiting != 0 || m.waitingBytes != 0 || len(m.deliveries) > 0 || len(m.untold) > 0 || m.closing.Load() != 0 || m.refusing.Load() != 0 || m.special.Load() != 0 || len(m.asked) > 0 {
		rest += fmt.Sprintf("waiting %d, bytes %d, deliveries %d, untold %v, closing %d, refusing %d, special %d, asked %d", m.waiting, m.waitingBytes, len(m.deliveries), m.untold, m.closing.Load(), m.refusing.Load(), m.special.Load(), len(m.asked))
	}
	return rest
}
