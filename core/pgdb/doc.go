// Package pgdb opens PostgreSQL sessions the way Synapse does: from psycopg2's arguments and libpq's environment,
// without loss, and says exactly in which phase an attempt failed. It imports nothing of this repository.
//
// [Settings] are libpq keywords. [FromArgs] makes them from homeserver.yaml, [Parse] from a connection string;
// [Settings.Resolve] adds what libpq would take from the environment, the service file and the password file, so that a
// plugin with an empty environment connects to the same place. [Pool] reads; [Connect] opens a single session.
//
//	settings, err := pgdb.FromArgs(args)
//	settings, err = settings.Resolve()
//	pool := pgdb.NewPool(settings, pgdb.Options{ApplicationName: "synapse-doctor/1"}, 2)
//	defer pool.Close()
//	err = pool.Read(ctx, func(tx pgx.Tx) error { … })
package pgdb
