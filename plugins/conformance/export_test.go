package conformance

// WithSlack stretches every limit: a test must not fail because the machine is busy.
func (o Options) WithSlack(n int) Options { o.slack = n; return o }
