package engine

import "sync"

// Stopper asks the operation that is being carried out to stop at a point from which it goes on later. The zero value is ready.
type Stopper struct {
	mu    sync.Mutex
	asked chan struct{} // nil while nothing is carried out that stops that way
	done  bool          // it has been asked
	told  func()
}

// Asked sets what is called when an operation has been asked.
func (s *Stopper) Asked(told func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = told
}

// Stop asks, and reports whether there was something to ask that had not been asked before.
func (s *Stopper) Stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil || s.done {
		return false
	}
	s.done = true
	close(s.asked)
	if s.told != nil {
		s.told()
	}
	return true
}

// begin is called when an operation begins that stops that way, end when it has ended.
func (s *Stopper) begin() (stopping <-chan struct{}, end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.done = make(chan struct{}), false
	return s.asked, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = nil
	}
}
