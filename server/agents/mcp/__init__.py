"""Tools of other servers, by the Model Context Protocol; see the README beside."""
