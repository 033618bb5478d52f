// Where a file lies inside an archive: what a listing of a tar or zip tells.

/** A file inside an archive. */
export interface ArchiveMember {
  path: string;
  /** Where its bytes begin, or its local header (zip). */
  offset: number;
  /** Bytes unpacked. */
  bytes: number;
  /** Bytes in the archive, where that is compressed. */
  packed?: number;
  /** "stored" and "deflate" can be read. */
  method: string;
  localHeader?: boolean;
}
