package p2p

func deviceMain() int { return 0 }
