package surroundings

// Metering is what a network manager says of a connection; its numbers are NetworkManager's.
type Metering uint32

const (
	MeteringUnknown  Metering = 0
	MeteringYes      Metering = 1 // somebody said so
	MeteringNo       Metering = 2
	MeteringGuessYes Metering = 3 // it looks like it: a telephone's hotspot, a modem
	MeteringGuessNo  Metering = 4
)

// metered puts together what is said of the device that is used and of all in all. What somebody said of the device itself counts; else whoever
// says yes is believed, as guesses are wrong of tunnels, and a wrong yes costs only patience.
func metered(device, overall Metering) bool {
	switch device {
	case MeteringYes:
		return true
	case MeteringNo:
		return false
	}
	return device == MeteringGuessYes || overall == MeteringYes || overall == MeteringGuessYes
}
