# Tcl's: tcllib's package websocket. Its handshake has an empty Sec-WebSocket-Protocol and two Connection lines. Usage: tcllib.tcl URL
package require websocket

set texts [list hello "\u00e4\u20ac" [string repeat t 70000]]
set received 0

proc on {sock type message} {
    global texts received
    switch -- $type {
        connect { ::websocket::send $sock text [lindex $texts 0] }
        text {
            if {$message ne [lindex $texts $received]} { puts stderr "text $received came back changed"; exit 1 }
            incr received
            if {$received < [llength $texts]} { ::websocket::send $sock text [lindex $texts $received]; return }
            puts "closed after $received texts"
            # It tells of a disconnection from within.
            ::websocket::close $sock 1000 done
        }
        disconnect { exit [expr {$received < [llength $texts]}] }
        error - timeout { puts stderr "$type $message"; exit 1 }
    }
}

::websocket::open [lindex $argv 0] on
after 30000 { puts stderr "nothing came for 30 seconds"; exit 1 }
vwait forever
