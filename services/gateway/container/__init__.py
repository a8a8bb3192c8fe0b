"""Reading and writing container files, each time in a child process, because demuxers read hostile bytes."""
