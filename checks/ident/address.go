package ident

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

type addressKind int

const (
	noAddress addressKind = iota // of a local record
	anyAddress
	sameHost
	sameNet
	hostName
	masked
)

// address is whom a host record is for.
type address struct {
	Kind addressKind
	Name string     // of a hostName; with a leading dot it stands for all below it
	Addr netip.Addr // of masked, as it is written: a bit outside the mask keeps it from nothing
	Mask netip.Addr // of Addr's family; its bits need not be contiguous

	zone string // of Addr, when it is no number
}

// read takes the address field, and tells whether a field with the mask follows.
func (a *address) read(t token) (needsMask bool, fault string) {
	switch {
	case t.keyword("all"):
		a.Kind = anyAddress
		return false, ""
	case t.keyword("samehost"):
		a.Kind = sameHost
		return false, ""
	case t.keyword("samenet"):
		a.Kind = sameNet
		return false, ""
	}
	text, bits, cidr := strings.Cut(t.Text, "/")
	var ok bool
	if a.Addr, a.zone, ok = numericHost(text); !ok {
		if cidr {
			return false, fmt.Sprintf("%q has a mask, but is no IP address", t.Text)
		}
		a.Kind, a.Name = hostName, text
		return false, ""
	}
	a.Kind = masked
	if !cidr {
		return true, ""
	}
	n, ok := maskBits(bits)
	if !ok || n > a.Addr.BitLen() {
		return false, fmt.Sprintf("%q has no valid mask length", t.Text)
	}
	a.Mask = contiguousMask(n, a.Addr.Is4())
	return false, ""
}

// setMask takes the field with the mask.
func (a *address) setMask(text string) (fault string) {
	mask, _, ok := numericHost(text)
	switch {
	case !ok:
		return fmt.Sprintf("%q is no netmask", text)
	case mask.Is4() != a.Addr.Is4():
		return fmt.Sprintf("%q is a netmask of another kind than the address", text)
	}
	a.Mask = mask
	return ""
}

// contains is whether the address is in the masked one.
func (a address) contains(addr netip.Addr) bool {
	if a.Addr.Is4() != addr.Is4() {
		return false
	}
	want, have, mask := a.Addr.AsSlice(), addr.AsSlice(), a.Mask.AsSlice()
	for i := range mask {
		if (want[i]^have[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}

func contiguousMask(n int, v4 bool) netip.Addr {
	var bytes [16]byte
	for i := range n {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	if v4 {
		return netip.AddrFrom4([4]byte(bytes[:4]))
	}
	return netip.AddrFrom16(bytes)
}

// maskBits reads a number as strtol does: after blanks, with a sign.
func maskBits(text string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimLeft(text, " \t\n\v\f\r"))
	return n, err == nil && n >= 0
}

// numericHost reads an address as getaddrinfo does when it may not ask for names. The zone of an IPv6 address is
// returned when it is a network interface's name, which counts only on a machine that has it.
func numericHost(text string) (addr netip.Addr, zone string, ok bool) {
	if addr, ok := inetAton(text); ok {
		return addr, "", true
	}
	text, zone, zoned := strings.Cut(text, "%")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is4() || zoned && zone == "" {
		return netip.Addr{}, "", false
	}
	if _, err := strconv.ParseUint(zone, 10, 32); err == nil || !zoned {
		return addr, "", true
	}
	if !addr.IsLinkLocalUnicast() && !addr.IsLinkLocalMulticast() {
		return netip.Addr{}, "", false
	}
	return addr, zone, true
}

// inetAton reads an IPv4 address in the forms that C programs know: up to four numbers, decimal, octal or hexadecimal,
// of which the last fills the bytes that are left (127.1, 0x7f000001).
func inetAton(text string) (netip.Addr, bool) {
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var whole uint32
	for i, part := range parts {
		n, ok := cNumber(part)
		if !ok {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			if room := 8 * (4 - i); n>>room != 0 {
				return netip.Addr{}, false
			}
			whole |= uint32(n)
			break
		}
		if n > 0xff {
			return netip.Addr{}, false
		}
		whole |= uint32(n) << (24 - 8*i)
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, whole))), true
}

// cNumber reads a number as strtoul with base 0 does, without sign.
func cNumber(text string) (uint64, bool) {
	base := 10
	if len(text) > 1 && text[0] == '0' {
		base = 8
		if text[1] == 'x' || text[1] == 'X' {
			base, text = 16, text[2:]
		}
	}
	if strings.Trim(text, "0123456789abcdefABCDEF") != "" {
		return 0, false // strconv would take a sign
	}
	n, err := strconv.ParseUint(text, base, 32)
	return n, err == nil
}
