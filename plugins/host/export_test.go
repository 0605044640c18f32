package host

import "github.com/synapse-doctor/synapse-doctor/core/doctor"

// InstalledThen is Installed, with something that happens between the look at the file and its execution.
func InstalledThen(path, sha256 string, o Options, then func()) *Source {
	return newFile(pluginName(path), path, &doctor.Terms{}, o, func() (program, error) {
		p, err := openRecorded(path, sha256)
		then()
		return p, err
	})
}
