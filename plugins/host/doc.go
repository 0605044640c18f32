// Package host runs plugins: each in a process of its own that it starts, talks to over mutual TLS, and ends. It imports
// core/doctor and the wire.
//
// [Builtin] is this very program run again, [Dev] a file that its author is working on, [Installed] a file whose SHA-256
// the administrator has recorded, [Candidate] one that is about to be recorded. Each is a doctor.Source:
//
//	builtin := host.Builtin(host.Options{})
//	builtin.Start(ctx) // returns at once; the first call waits
//	defer builtin.Close()
//	d, err := builtin.Describe(ctx)
//
// A plugin is never trusted to behave. It costs what it costs itself: a call ends with its context whatever the plugin
// does, an answer that makes no sense is an error, and after Close there is no process, no socket and no directory.
// A process that dies under a call makes that call return a *[CrashError]; while that says Restartable, the next call
// starts it again.
//
// What contains a plugin is what it is handed. It runs as the user who runs the doctor and can do what that user can.
package host
