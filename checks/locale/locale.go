// Package locale is the check that text is compared in the locale C, and that no index was built in another order. It may
// import core/doctor, core/synapse, core/pgdb and core/sqlitedb.
package locale

// The codes of the check.
const (
	NotC               = "locale/not-c"                     // COLLATE or CTYPE of the database is not C
	ProviderNotLibcC   = "locale/provider-not-libc-c"       // C by name, compared by ICU or the builtin provider
	CatalogEdited      = "locale/catalog-edited"            // C by a hand-edited catalog
	ObjectNotC         = "locale/object-not-c"              // a column or index with a collation of its own
	VersionChanged     = "locale/collation-version-changed" // recorded against actual version
	UnsafeAllowed      = "locale/unsafe-locale-allowed"     // allow_unsafe_locale is set
	ReplicaDiffers     = "locale/replica-differs"           // a replica compares text in another way
	ReplicaNotCompared = "locale/replica-not-compared"      // a streaming standby that nobody named
	IndexCorrupt       = "locale/index-corrupt"             // --deep: an index is not in order
	DuplicateKeys      = "locale/duplicate-keys"            // --deep: a unique key is there twice
	IndexInvalid       = "locale/index-invalid"             // left by a CREATE INDEX or REINDEX CONCURRENTLY that failed
)
