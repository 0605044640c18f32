// Package doctor is the vocabulary of synapse-doctor: everything that a check needs, and the only package of this
// repository that an author of checks has to read.
//
// A [Check] examines one concern of a homeserver's database. Its Run looks at a [Target] and reports a [Finding] for
// each fault. Its Plan answers findings with a [Plan]: an ordered list of [Step] values that are pure data. A check never
// changes anything itself: the host prints the plan, asks for consent, executes the steps, keeps what is needed to undo
// them, and runs the check again to prove that it worked. Work too long or too particular for plain statements is an
// operation step, which the plugin executes while the host watches and records.
//
//	var Check = doctor.Check{
//		ID:    "greeting",
//		Title: "Rooms have names",
//		Why:   "A room without a name is hard to find.",
//		Needs: doctor.NeedsSynapse,
//		Codes: []doctor.Code{{ID: "greeting/no-name", Title: "a room has no name", Severity: doctor.Info}},
//		Run: func(ctx context.Context, t *doctor.Target, r doctor.Reporter) error {
//			return t.Main().Read(ctx, func(tx pgx.Tx) error { … r.Find(doctor.Finding{…}) … })
//		},
//	}
//
// The verbs are: run a check, plan a fix, apply a plan, verify the result. A [Source] is whoever answers them: the checks
// of this process ([Local]) or a plugin in a process of its own. The engine cannot tell one from the other.
//
// What a check could not look at is never healthy. A Run that returns an error makes the check's status unknown, with
// the error as its reason; one that returns [Skip] says that the check does not apply.
package doctor
