"""What every live stream has, whatever its transport: flow control, session, mailbox, tracker."""
