package ident

import (
	"net/netip"
	"testing"
)

// Seen in pg_hba_file_rules, with the C library glibc.
func TestAddressesAsTheCLibraryReadsThem(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "127.1": "127.0.0.1", "1.2.65535": "1.2.255.255", "10.256": "10.0.1.0", "1.16777215": "1.255.255.255",
		"2130706433": "127.0.0.1", "0x7f.1": "127.0.0.1", "0X7F000001": "127.0.0.1", "017700000001": "127.0.0.1", "010.0.0.1": "8.0.0.1", "0": "0.0.0.0", "00": "0.0.0.0",
		"::1": "::1", "2001:DB8::": "2001:db8::", "::ffff:10.0.0.1": "::ffff:10.0.0.1", "fe80::1%2": "fe80::1", "::1%1": "::1", "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
		"": "", "1.2.3.256": "", "256.1.1.1": "", "1.2.65536": "", "1.16777216": "", "4294967296": "", "1.2.3.4.5": "", "1..2": "", "1.2.3.": "", ".": "", "08.1.1.1": "",
		"0x": "", "+1": "", "-1": "", " 1.2.3.4": "", "1.2.3.4 ": "", "1.2.3.4%1": "", "127.0.0.1x": "", "1_0.0.0.1": "", "0x+1": "", "::1%lo": "", "::1%": "", "[::1]": "", "1::2::3": "",
		"::1.2.3.04": "", "localhost": "",
	} {
		addr, zone, ok := numericHost(text)
		if ok != (want != "") || ok && addr != netip.MustParseAddr(want) || zone != "" {
			t.Errorf("%q: %v %q %v", text, addr, zone, ok)
		}
	}
	if addr, zone, ok := numericHost("fe80::1%eth0"); !ok || zone != "eth0" || addr != netip.MustParseAddr("fe80::1") {
		t.Error(addr, zone, ok)
	}
}

func TestMaskLengthsAsTheCLibraryReadsThem(t *testing.T) {
	for text, want := range map[string]int{
		"8": 8, "08": 8, "+8": 8, " 8": 8, "\t+8": 8, "-0": 0,
		"": -1, " ": -1, "-": -1, "8 ": -1, "-1": -1, "0x8": -1, "8/8": -1, "8.0": -1, "99999999999999999999": -1, "1_0": -1, "+ 8": -1,
	} {
		if got, ok := maskBits(text); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d %v", text, got, ok)
		}
	}
}
