"""What a lesson needs: traffic made up in memory, the rules of other tools, and pictures of both."""
